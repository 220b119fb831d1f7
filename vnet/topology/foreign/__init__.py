"""What others declare, as a topology: libvirt's domains, OVF, Compose, containerlab.

`xml` and `tree` read without trusting; each format has a module that says what its words mean here; `sheet`
collects networks and VMs, and all that has no counterpart, and writes the document.
"""
