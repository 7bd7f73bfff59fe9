"""The tasks by name.

A task is a module with a dataclass `Request` (the fields of its request) and a function
`run(request, job) -> dict` whose return value becomes the `result` event. It is imported only when asked
for, and keeps slow imports inside `run`, so that a refused request is refused at once.
"""

TASKS = {
    "synthesize": "soprano_export.tasks.synthesize",
    "download": "soprano_export.tasks.download",
    "convert": "soprano_export.tasks.convert",
    "export": "soprano_export.tasks.export",
    "record": "soprano_export.tasks.record",
    "speak": "soprano_export.tasks.speak",
    "publish": "soprano_export.tasks.publish",
    "bench": "soprano_export.tasks.bench",
    "pesq": "soprano_export.tasks.pesq",
    "environment": "soprano_export.tasks.environment",
}
