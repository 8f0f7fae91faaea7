"""What commands of `launch.py` do, once it has read their flags."""
