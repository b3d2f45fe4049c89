"""nbmake runs the lessons in pytest's own process: a widget must not halt it (see patient_client)."""

import patient_client  # noqa: F401
