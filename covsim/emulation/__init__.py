"""The same scripts over real processes, real sockets, shaped links and an S3 API.

Every node is an operating-system process that runs the code of `nodes` on a wall clock; what they share in a simulation
lies with a chain process and in an object store. This room knows processes, sockets and wall seconds. It may import
what the composition root may, and the recorder; nobody imports it but its command.
"""
