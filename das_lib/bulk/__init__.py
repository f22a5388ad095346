"""Bulk transcription: from any corpus to transcripts in the forms that people use.

    sources (folders, manifests, entries, archives,    where the recordings are -> `Recording`
        parquets, kinds, seen), corpus                  ... -> blocks of a dataset
    fetch                                               a recording's bytes, wherever they lie
    media (decoders)                                    bytes -> blocks of 16 kHz mono
    vad, windows, pack                                  blocks -> windows of speech, up to 30 s
    batches (the replicas), or `local` in this process  windows -> what was heard in them
    holes, fill, loops, guards, stitch, pauses, written what was heard -> `Transcript`
    hear                                                all of that for one recording
    rows, summary, merge                                transcripts as a dataset, and what it says
    formats (subtitles, scoring, json_forms), export    txt, srt, vtt, json, jsonl, ctm, stm
    api, languages                                      the fields and answers of OpenAI's API

Nothing here knows Ray; ``ray_jobs.bulk`` and ``ray_jobs.listen`` join the parts. Nothing but
`local` needs torch: workers must start fast.
"""
