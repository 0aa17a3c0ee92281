"""The only room that knows bytes and keys; what it has confirmed, it never loses."""
