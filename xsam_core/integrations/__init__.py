"""Trainers of other libraries: import the module of yours; nothing here is imported by `import xsam_core`."""
