"""Ready-made systems with known answers: toy potentials with exact committors, and molecules."""
