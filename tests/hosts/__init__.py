import smpc.hosts  # noqa: F401  # before gRPC, which reads what this sets when it is imported
