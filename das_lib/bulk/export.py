"""Transcripts as files in the forms that people use, beside the dataset."""

from collections.abc import Mapping

import pyarrow as pa

from das_lib.bulk.file_names import file_name
from das_lib.bulk.formats import PER_BLOCK, render
from das_lib.bulk.rows import from_row
from das_lib.ids import row_id
from das_lib.rows import Outcome
from das_lib.storage import Folder
from schemas.bulk import EXPORTS


class Export:
    """Work: a block of transcripts to the files of each format that lacks it."""

    def __init__(self, folders: Mapping[str, Folder]) -> None:
        self.folders = folders

    def __call__(self, rows: pa.Table, outputs: list[str]) -> Mapping[str, Outcome]:
        """Rows of BULK_TRANSCRIPTS to rows of EXPORTS for each format."""
        transcripts = [from_row(row) for row in rows.to_pylist()]
        made = {}
        for format in outputs:
            folder, files = self.folders[format], {}
            if format in PER_BLOCK:
                name = f"{row_id(*(t.id for t in transcripts))}.{format}"
                text = "".join(render(t, format) for t in transcripts)
                folder.write(name, text.encode("utf-8", "replace"))
                files = {t.id: name for t in transcripts}
            else:
                for transcript in transcripts:
                    name = file_name(transcript.id, format)
                    folder.write(name, render(transcript, format).encode("utf-8", "replace"))
                    files[transcript.id] = name
            listed = [{"id": id, "file": name} for id, name in files.items()]
            made[format] = Outcome(pa.Table.from_pylist(listed, schema=EXPORTS))
        return made
