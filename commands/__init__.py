"""What the commands share: their options, and how a codec is loaded."""
