"""Our calls of the GPU's libraries, held against these; no GPU is needed, see tools/contract-wheels."""
