"""Virtual machines for the lab: their image, their kernel, their wire, and what runs in them."""
