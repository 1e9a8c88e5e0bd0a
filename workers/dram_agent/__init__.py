"""The device agent: verifies, stores, proves and serves a channel's release, and tells how it fares."""
