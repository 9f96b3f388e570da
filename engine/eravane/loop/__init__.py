"""The prequential loop: predict an era, wait for older labels, score, learn, save."""
