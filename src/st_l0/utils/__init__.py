"""What every package may use: files, batches of a stream, sparse vectors, devices, resumable work."""
