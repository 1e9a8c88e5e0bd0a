"""What is made from the charts, and what charts are made from."""
