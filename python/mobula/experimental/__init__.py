"""What Ray has under this name, as far as programs use it."""
