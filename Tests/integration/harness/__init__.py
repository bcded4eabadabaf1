"""What the integration, conformance and benchmark runs share: targets, loop devices, an initiator. Standard
library only."""
