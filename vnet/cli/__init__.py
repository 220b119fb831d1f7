"""The command line: parses, asks the daemon over its unix socket, prints. It decides nothing itself."""
