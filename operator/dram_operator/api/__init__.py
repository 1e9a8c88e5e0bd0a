"""The resources as code: what users write, what they read, and the CRDs generated from both."""
