"""Qdrant's own engine in this process, behind qdrant-client's calls.

Takes and returns the models of qdrant-client. Importing this package loads no engine. The modules,
from the caller inwards::

    choice          which engine opens a directory: qdrant-edge, or qdrant-client's local mode
    client          EmbeddedClient, a QdrantClient that can be opened, optimised and closed
    engine          its calls, in three parts:
      collections     collections, aliases and payload indexes
      writes          points that are stored, changed and deleted
      reads           the arguments of searches, for
        search          the Query API, groups, scroll, count
        matrix          how near the points of a sample are to each other
    shards          collections that are created, opened, changed and removed
    opened          directories that are open in this process, shared by its clients
    directory       the list of collections on disk, and whose folders are whose
    places          the path and the lock of a directory, and temporary ones

These modules convert the models of one side into those of the other, without I/O: ``config``
(settings), ``points`` (points and vectors), ``operations`` (changes of points), ``vector_changes``,
``queries``, ``filters`` and ``formulas``. ``checks`` refuses what the engine would log and then not
be able to apply, and ``engine_errors`` raises the engine's exceptions as ours. ``groups`` puts hits
into groups. ``closed_files`` sees damage of a collection's files when it is opened, and
``recovery`` reads a collection that is damaged or whose log cannot be replayed.
"""
