"""Where inputs lie (a folder, a bucket, the model hub, an installed package), and bringing them to this machine."""
