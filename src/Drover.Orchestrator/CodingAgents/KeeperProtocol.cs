using System.Buffers;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;

namespace Drover.Orchestrator.CodingAgents;

/// <summary>What the keeper is told, in one line on its standard input; afterwards come <c>go</c>, <c>stop</c> and <c>kill</c>. Secrets travel here, never in an argument list.</summary>
internal sealed record KeeperSpec(
    int Owner,
    string RunToken,
    string File,
    IReadOnlyList<string> Argv,
    string WorkingDirectory,
    IReadOnlyDictionary<string, string> Environment,
    string? StdinFile,
    string LogPath,
    long OutputCap,
    int LineCap,
    int StopGraceMilliseconds,
    IReadOnlyList<string> Secrets)
{
    internal byte[] ToLine() => KeeperLine.Write(json =>
    {
        json.WriteNumber("owner", Owner);
        json.WriteString("token", RunToken);
        json.WriteString("file", File);
        WriteList(json, "argv", Argv);
        json.WriteString("cwd", WorkingDirectory);
        json.WriteStartObject("env");
        foreach (var (name, value) in Environment)
            json.WriteString(name, value);
        json.WriteEndObject();
        json.WriteString("stdin", StdinFile);
        json.WriteString("log", LogPath);
        json.WriteNumber("cap", OutputCap);
        json.WriteNumber("lineCap", LineCap);
        json.WriteNumber("grace", StopGraceMilliseconds);
        WriteList(json, "secrets", Secrets);
    });

    internal static KeeperSpec FromLine(ReadOnlyMemory<byte> line)
    {
        using var document = JsonDocument.Parse(line);
        var root = document.RootElement;
        // Plain loops here and below: LINQ over these structs would cost the keeper's start 20 ms of compilation.
        var environment = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var pair in root.GetProperty("env").EnumerateObject())
            environment[pair.Name] = pair.Value.GetString()!;
        return new(
            root.GetProperty("owner").GetInt32(),
            Text(root, "token"),
            Text(root, "file"),
            ReadList(root, "argv"),
            Text(root, "cwd"),
            environment,
            root.GetProperty("stdin").GetString(),
            Text(root, "log"),
            root.GetProperty("cap").GetInt64(),
            root.GetProperty("lineCap").GetInt32(),
            root.GetProperty("grace").GetInt32(),
            ReadList(root, "secrets"));
    }

    private static string Text(JsonElement element, string name) => element.GetProperty(name).GetString()!;

    private static List<string> ReadList(JsonElement element, string name)
    {
        var list = new List<string>();
        foreach (var item in element.GetProperty(name).EnumerateArray())
            list.Add(item.GetString()!);
        return list;
    }

    private static void WriteList(Utf8JsonWriter json, string name, IReadOnlyList<string> values)
    {
        json.WriteStartArray(name);
        foreach (var value in values)
            json.WriteStringValue(value);
        json.WriteEndArray();
    }
}

/// <summary>What a keeper's line is about.</summary>
internal enum KeeperEventKind
{
    /// <summary>Spec read, subreaper: waits for <c>go</c>.</summary>
    Ready,
    /// <summary>The program could not be started.</summary>
    Failed,
    /// <summary>The program runs.</summary>
    Started,
    /// <summary>A line of output.</summary>
    Line,
    /// <summary>Output that is not a whole line yet.</summary>
    Activity,
    /// <summary>The tree is ended, or survivors are named.</summary>
    End,
}

/// <summary>One line of the keeper's output; which fields are set depends on the kind.</summary>
internal sealed record KeeperEvent(KeeperEventKind Kind)
{
    internal int Pid { get; init; }
    internal long StartTicks { get; init; }
    internal int Stream { get; init; }
    internal string Text { get; init; } = "";
    internal bool Cut { get; init; }
    internal int? ExitCode { get; init; }
    internal int? Signal { get; init; }
    internal long Received { get; init; }
    internal long LeftOut { get; init; }
    internal int Ended { get; init; }
    internal IReadOnlyList<ProcessIdentity> Survivors { get; init; } = [];

    internal byte[] ToLine() => KeeperLine.Write(json =>
    {
        json.WriteNumber("e", (int)Kind);
        switch (Kind)
        {
            case KeeperEventKind.Ready or KeeperEventKind.Started:
                json.WriteNumber("pid", Pid);
                json.WriteNumber("ticks", StartTicks);
                break;
            case KeeperEventKind.Line:
                json.WriteNumber("s", Stream);
                json.WriteString("t", Text);
                if (Cut)
                    json.WriteBoolean("cut", true);
                break;
            case KeeperEventKind.Failed:
                json.WriteString("t", Text);
                break;
            case KeeperEventKind.End:
                if (ExitCode is { } code)
                    json.WriteNumber("code", code);
                if (Signal is { } signal)
                    json.WriteNumber("signal", signal);
                json.WriteNumber("bytes", Received);
                json.WriteNumber("left", LeftOut);
                json.WriteNumber("ended", Ended);
                json.WriteString("t", Text);
                json.WriteStartArray("survivors");
                foreach (var survivor in Survivors)
                {
                    json.WriteNumberValue(survivor.Pid);
                    json.WriteNumberValue(survivor.StartTicks);
                }
                json.WriteEndArray();
                break;
        }
    });

    /// <summary>Null when the line is not one of ours, for example what a failing runtime prints.</summary>
    internal static KeeperEvent? FromLine(ReadOnlyMemory<byte> line)
    {
        if (line.Length == 0 || line.Span[0] != '{')
            return null;
        try
        {
            using var document = JsonDocument.Parse(line);
            var root = document.RootElement;
            var survivors = root.TryGetProperty("survivors", out var list) ? list.EnumerateArray().Select(item => item.GetInt64()).ToArray() : [];
            return new((KeeperEventKind)root.GetProperty("e").GetInt32())
            {
                Pid = (int)(Number(root, "pid") ?? 0),
                StartTicks = Number(root, "ticks") ?? 0,
                Stream = (int)(Number(root, "s") ?? 0),
                Text = root.TryGetProperty("t", out var text) ? text.GetString() ?? "" : "",
                Cut = root.TryGetProperty("cut", out _),
                ExitCode = (int?)Number(root, "code"),
                Signal = (int?)Number(root, "signal"),
                Received = Number(root, "bytes") ?? 0,
                LeftOut = Number(root, "left") ?? 0,
                Ended = (int)(Number(root, "ended") ?? 0),
                Survivors = [.. survivors.Chunk(2).Select(pair => ProcessIdentity.Of((int)pair[0], pair[1]))],
            };
        }
        catch (Exception error) when (error is JsonException or KeyNotFoundException or InvalidOperationException)
        {
            return null;
        }
    }

    private static long? Number(JsonElement element, string name) => element.TryGetProperty(name, out var value) ? value.GetInt64() : null;
}

/// <summary>Writes one JSON object as a line, and reads lines from a pipe.</summary>
internal static class KeeperLine
{
    private static readonly JsonWriterOptions Options = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping, SkipValidation = true };

    internal static byte[] Write(Action<Utf8JsonWriter> fill)
    {
        var buffer = new ArrayBufferWriter<byte>(256);
        using (var json = new Utf8JsonWriter(buffer, Options))
        {
            json.WriteStartObject();
            fill(json);
            json.WriteEndObject();
        }
        buffer.Write("\n"u8);
        return buffer.WrittenSpan.ToArray();
    }

    /// <summary>Hands over every complete line until the end of the stream; what follows the last line end is dropped.</summary>
    internal static void ReadAll(Stream stream, Action<ReadOnlyMemory<byte>> onLine)
    {
        var buffer = new byte[64 * 1024];
        var filled = 0;
        while (true)
        {
            if (filled == buffer.Length)
                Array.Resize(ref buffer, buffer.Length * 2); // only our own, bounded, lines come here
            var read = stream.Read(buffer, filled, buffer.Length - filled);
            if (read <= 0)
                return;
            var from = 0;
            var scanned = filled;
            filled += read;
            for (int end; (end = buffer.AsSpan(scanned, filled - scanned).IndexOf((byte)'\n')) >= 0;)
            {
                onLine(buffer.AsMemory(from, scanned + end - from));
                scanned = from = scanned + end + 1;
            }
            buffer.AsSpan(from, filled - from).CopyTo(buffer);
            filled -= from;
        }
    }

    internal static string AsText(ReadOnlyMemory<byte> line) => Encoding.UTF8.GetString(line.Span);
}
