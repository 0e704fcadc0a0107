"""Raw studies in, a BIDS dataset out: `hmf prepare`."""
