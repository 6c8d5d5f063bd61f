using System.Buffers;
using System.Text;

namespace Drover.Orchestrator.CodingAgents;

/// <summary>
/// Takes a contained process's two output streams, redacts secrets, stores whole lines in the log file and hands
/// lines on. Memory and disk stay bounded whatever the process writes. Thread-safe.
/// </summary>
internal sealed class OutputSink
{
    private readonly Lock gate = new();
    private readonly BoundedLog log;
    private readonly int lineCap;
    private readonly Action<int, string, bool> onLine;
    private readonly OutputStream[] streams;
    private bool closed;

    /// <summary><paramref name="onLine"/> gets the stream (1 output, 2 errors), the text without its line end, and whether it was cut at the cap.</summary>
    internal OutputSink(string logPath, long outputCap, int lineCap, IReadOnlyList<string> secrets, Action<int, string, bool> onLine)
    {
        log = new BoundedLog(logPath, outputCap);
        this.lineCap = lineCap;
        this.onLine = onLine;
        streams = [new(1, secrets), new(2, secrets)];
    }

    /// <summary>Bytes received.</summary>
    internal long Received { get; private set; }

    /// <summary>Bytes that the log does not hold because of its cap.</summary>
    internal long LeftOut => log.LeftOut;

    /// <summary>Why the log is incomplete, or null. A full disk must not end the agent.</summary>
    internal string? Problem => log.Problem;

    internal void Write(int stream, ReadOnlySpan<byte> bytes)
    {
        lock (gate)
        {
            if (closed)
                return; // reading has ended although someone still holds the pipe
            Received += bytes.Length;
            var to = streams[stream - 1];
            to.Redactor.Write(bytes, to.Redacted);
            TakeLines(to, last: false);
        }
    }

    /// <summary>Writes what is unfinished and closes the log. Later writes are dropped.</summary>
    internal void Close()
    {
        lock (gate)
        {
            if (closed)
                return;
            closed = true;
            foreach (var stream in streams)
            {
                stream.Redactor.Finish(stream.Redacted);
                TakeLines(stream, last: true);
            }
            log.Dispose();
        }
    }

    private void TakeLines(OutputStream stream, bool last)
    {
        var rest = stream.Redacted.WrittenSpan;
        while (rest.Length > 0)
        {
            var end = rest.IndexOf((byte)'\n');
            if (end < 0 && rest.Length < lineCap && !last)
                break;
            var piece = end < 0 ? rest[..Math.Min(rest.Length, lineCap)] : rest[..Math.Min(end, lineCap)];
            var whole = end >= 0 && piece.Length == end;
            if (!stream.InLongLine)
                onLine(stream.Number, Encoding.UTF8.GetString(piece.TrimEnd((byte)'\r')), !whole && !(last && piece.Length == rest.Length));
            log.Write(piece);
            if (whole || (last && piece.Length == rest.Length))
                log.Write("\n"u8);
            stream.InLongLine = !whole;
            rest = rest[(piece.Length + (whole ? 1 : 0))..];
        }
        stream.Keep(rest);
    }

    private sealed class OutputStream(int number, IReadOnlyList<string> secrets)
    {
        internal int Number { get; } = number;
        internal SecretRedactor Redactor { get; } = new(secrets);
        internal ArrayBufferWriter<byte> Redacted { get; } = new();
        internal bool InLongLine { get; set; }

        internal void Keep(ReadOnlySpan<byte> rest)
        {
            if (rest.Length == Redacted.WrittenCount)
                return;
            var kept = rest.ToArray();
            Redacted.ResetWrittenCount();
            Redacted.Write(kept);
        }
    }
}

/// <summary>
/// A log file that holds the first half of its cap and, of what follows, the last quarter to half. The end is
/// kept in two files beside it that take turns, so that memory stays small and a kill loses nothing; at the end
/// they are appended after a line that says how much is missing.
/// </summary>
internal sealed class BoundedLog : IDisposable
{
    private readonly string path;
    private readonly long headCap, turnCap;
    private FileStream? head;
    private FileStream? turn;
    private long headBytes, turnBytes, previousBytes;
    private int turns;

    internal BoundedLog(string path, long cap)
    {
        this.path = path;
        headCap = cap / 2;
        turnCap = cap / 4;
        Guarded(() => head = Open(path, FileMode.Append));
    }

    internal long LeftOut { get; private set; }

    internal string? Problem { get; private set; }

    internal void Write(ReadOnlySpan<byte> bytes)
    {
        if (Problem is not null)
            return;
        try
        {
            if (turns == 0 && headBytes + bytes.Length <= headCap)
            {
                headBytes += bytes.Length;
                head!.Write(bytes);
                return;
            }
            if (turn is null || turnBytes + bytes.Length > turnCap)
                NextTurn();
            turnBytes += bytes.Length;
            turn!.Write(bytes);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            Problem = error.Message;
        }
    }

    public void Dispose()
    {
        Guarded(() =>
        {
            if (turns == 0)
            {
                head?.Dispose();
                return; // files of an earlier, killed keeper may lie beside it: they are not ours to remove
            }
            using (head)
            {
                head!.Write(Encoding.UTF8.GetBytes($"[drover: {LeftOut} bytes left out here]\n"));
                turn!.Dispose();
                for (var number = Math.Max(1, turns - 1); number <= turns; number++)
                {
                    using var part = File.OpenRead(TurnPath(number));
                    part.CopyTo(head);
                }
            }
            File.Delete(TurnPath(1));
            File.Delete(TurnPath(2));
        });
    }

    private void NextTurn()
    {
        turn?.Dispose();
        turns++;
        if (turns > 2)
            LeftOut += previousBytes;
        previousBytes = turnBytes;
        turnBytes = 0;
        turn = Open(TurnPath(turns), FileMode.Create);
    }

    private string TurnPath(int number) => $"{path}.end{number % 2}";

    private static FileStream Open(string path, FileMode mode)
    {
        var options = new FileStreamOptions { Mode = mode, Access = FileAccess.Write, Share = FileShare.ReadWrite, BufferSize = 0 };
        if (!OperatingSystem.IsWindows())
            options.UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite;
        return new FileStream(path, options);
    }

    private void Guarded(Action act)
    {
        try
        {
            act();
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            Problem ??= error.Message;
        }
    }
}
