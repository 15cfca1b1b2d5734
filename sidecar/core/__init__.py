"""The pure part: decides everything, touches nothing."""
