"""Fabrics as pictures: what is drawn (`scene`), where it stands (`layout`), and the forms of files."""
