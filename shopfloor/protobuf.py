"""Message classes of Protocol Buffers made while the program runs, so that no generated file lies about.

Source: Protocol Buffers documentation, "Self-describing messages" and `google.protobuf.message_factory`.
"""

import tempfile
from pathlib import Path
from types import SimpleNamespace

from google.protobuf import (  # type: ignore[import-untyped]  # publishes no types
    descriptor_pb2,
    descriptor_pool,
    message_factory,
)
from grpc_tools import protoc

FILE = "messages.proto"


def messages(proto: str) -> SimpleNamespace:
    """Compile the text of a `.proto` file.

    Each call has a pool of its own, so that two versions of one message can live side by side.

    Args:
        proto: with its `syntax` line, and nothing imported.

    Returns:
        The classes of its messages by their names.

    Raises:
        ValueError: protoc refuses it; what is wrong it has printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, FILE).write_text(proto)
        compiled = Path(folder, "messages.pb")
        if protoc.main(["protoc", f"-I{folder}", f"--descriptor_set_out={compiled}", FILE]):
            raise ValueError("protoc refuses these messages")
        files = descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    classes = message_factory.GetMessageClassesForFiles([FILE], pool)
    return SimpleNamespace(**{name.rpartition(".")[2]: made for name, made in classes.items()})
