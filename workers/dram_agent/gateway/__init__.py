"""`dram gateway`: takes telemetry from devices that it knows, stamps it with who they are, and passes it on."""
