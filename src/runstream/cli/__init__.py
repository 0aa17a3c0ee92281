"""The command line: a gRPC client like any other."""

import os

# What the gRPC core logs about lost connections is told by the commands themselves. It reads this when it is loaded.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
