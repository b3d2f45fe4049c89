"""What every room uses: arguments in clear sentences, files written whole, files read with care, processes."""
