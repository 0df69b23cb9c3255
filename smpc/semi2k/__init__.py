"""semi2k: semi-honest computation over Z_2^64 by two to five workers, and a provider that deals.

The modules, from the bottom up; each imports only what stands before it:

    ring randomness        words mod 2^64; AES-CTR streams, addressed by run and attempt
    arithmetic comparison  a worker's side of the protocols: generators that yield what they want
                           opened
    dealer                 what the crypto provider makes for each
    program                instructions for all parties, with nothing in them that is secret
    graph values compiler  values with their scale; where truncations, masks and rounds go
    wire storage           what each party may say to each; what a worker keeps in a file
    run                    a program at an end: computed, and kept until it counts
    worker provider owner  the parties' ends: a message in, messages out, to named parties
    network session        the simulation's channels; the orchestrator's end
    tensor                 Semi2kTensor, what syft computes with

`smpc.syft_binding.install()` makes it a protocol of syft's.
"""
