"""What reading a file of arrays raises that was cut off or is not what it should be."""

import struct
import tokenize
import zipfile
import zlib

DAMAGES = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    EOFError,
    RuntimeError,  # an archive that says it is encrypted, or of a method unknown
    struct.error,
    SyntaxError,  # the head of an array, as is the next
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
