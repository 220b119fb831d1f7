"""What every package may use: errors, source positions, addresses, paths, drop reasons."""
