"""TensorBoard's file."""

import time
from pathlib import Path


class Events:
    """TensorBoard's file: one event a row, which reaches the disk within a second of the next row. Its own writer takes
    an event and a thread's turn for every number; and events written one by one, between chunks that have the
    processor's caches, cost twice as much as together.
    """

    def __init__(self, directory: Path, first_step: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary

        directory.mkdir(exist_ok=True)
        self._event, self._summary, self._waiting = Event, Summary, []
        self._writer = EventsWriter(str(directory / "events"))
        # What an earlier session wrote from this step on is not shown.
        start = Event(wall_time=time.time(), step=first_step, session_log=SessionLog(status=SessionLog.START))
        self._writer.write_event(start)
        self.flush()

    def row(self, step: int, values: dict[str, float]) -> None:
        """One event after `step` steps."""
        self._waiting.append((time.time(), step, values))
        if time.time() > self._flushed + 1:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting."""
        for wall_time, step, values in self._waiting:
            value = [self._summary.Value(tag=name, simple_value=x) for name, x in values.items()]
            event = self._event(wall_time=wall_time, step=step, summary=self._summary(value=value))
            self._writer.write_event(event)
        self._waiting.clear()
        self._writer.flush()
        self._flushed = time.time()

    def close(self) -> None:
        """Flush and close the file."""
        self.flush()
        self._writer.close()
