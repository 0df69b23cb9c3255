"""semi2k: semi-honest two-party computation over Z_2^64, with a crypto provider that deals.

`smpc.semi2k.tensor.install()` makes it a protocol of syft's. The modules, from the bottom up:
`ring`, `randomness`, `arithmetic`, `comparison`, `dealer`, `program`, `storage`, `parties`,
`network`, `rounds`, `tensor`.
"""
