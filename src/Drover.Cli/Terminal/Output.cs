using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Drover.Orchestrator.CodingAgents;

namespace Drover.Cli.Terminal;

/// <summary>A colour of the terminal's own palette.</summary>
internal enum Colour
{
    None = 0,
    Bold = 1,
    Dim = 2,
    Red = 31,
    Green = 32,
    Yellow = 33,
    Cyan = 36,
}

/// <summary>A piece of a line. Its text is foreign until <see cref="Output"/> has printed it.</summary>
internal readonly record struct Part(string Text, Colour Colour = Colour.None)
{
    public static implicit operator Part(string text) => new(text);

    public static implicit operator Part((string Text, Colour Colour) part) => new(part.Text, part.Colour);
}

/// <summary>
/// Where output goes: data to stdout, prose to stderr. Every text passes the one sanitizer here (rule L-01), and colour is added
/// after it, so that no caller can forget either.
/// </summary>
internal sealed class Output(TextWriter data, TextWriter prose, bool dataIsTerminal, bool proseIsTerminal, bool colour, bool dumb = false)
{
    private readonly Lock _gate = new();
    private bool _proseIsGone;

    /// <summary>True when stdout is a terminal.</summary>
    public bool DataIsTerminal => dataIsTerminal;

    /// <summary>True when stderr is a terminal on which progress can be drawn in place.</summary>
    public bool CanRedraw => proseIsTerminal && !dumb;

    /// <summary>Called instead of writing prose while a live display owns stderr; null otherwise.</summary>
    public Action<string>? Above { get; set; }

    public static Output OfThisProcess(IReadOnlyDictionary<string, string?> environment)
    {
        var utf8 = new UTF8Encoding(encoderShouldEmitUTF8Identifier: false);
        bool dumb = environment.GetValueOrDefault("TERM") is null or "" or "dumb";
        bool colour = !dumb && environment.GetValueOrDefault("NO_COLOR") is null or "";
        return new Output(
            new StreamWriter(Console.OpenStandardOutput(), utf8, 8192) { AutoFlush = false, NewLine = "\n" },
            new StreamWriter(Console.OpenStandardError(), utf8, 1024) { AutoFlush = true, NewLine = "\n" },
            !Console.IsOutputRedirected, !Console.IsErrorRedirected, colour, dumb);
    }

    /// <summary>A line of data on stdout.</summary>
    public void Line(params ReadOnlySpan<Part> parts)
    {
        string line = Compose(parts, colour && dataIsTerminal);
        lock (_gate)
            data.WriteLine(line);
    }

    /// <summary>Text on stdout without a line end.</summary>
    public void Text(string text)
    {
        lock (_gate)
            data.Write(TerminalText.Sanitize(text));
    }

    /// <summary>A line of prose on stderr.</summary>
    public void Say(params ReadOnlySpan<Part> parts)
    {
        if (Above is { } above)
            above(Compose(parts, colour && proseIsTerminal));
        else
            WriteProse(Compose(parts, colour && proseIsTerminal) + "\n");
    }

    /// <summary>Takes stderr back from a live display that will not end by itself any more: its block is erased, the cursor is shown.</summary>
    public void EndLive()
    {
        if (Above is null)
            return;
        Above = null;
        WriteProse("\r\x1b[J\x1b[?25h");
    }

    /// <summary>One JSON value on stdout. Its encoder escapes everything that is not plain ASCII text.</summary>
    public void Json<T>(T value, JsonTypeInfo<T> type)
    {
        string text = JsonSerializer.Serialize(value, type);
        lock (_gate)
            data.WriteLine(text);
    }

    /// <summary>Empties the terminal before a view is shown anew.</summary>
    public void ClearScreen()
    {
        lock (_gate)
            data.Write("\x1b[H\x1b[2J");
    }

    /// <summary>Hands what was written to the operating system.</summary>
    public void Flush()
    {
        lock (_gate)
            data.Flush();
    }

    // A run outlives the terminal it was started on: when nobody can hear any more, it goes on or ends in order, but does not fail.
    private void WriteProse(string text)
    {
        lock (_gate)
        {
            if (_proseIsGone)
                return;
            try
            {
                prose.Write(text);
            }
            catch (IOException)
            {
                _proseIsGone = true;
            }
        }
    }

    private static string Compose(ReadOnlySpan<Part> parts, bool coloured)
    {
        var line = new StringBuilder();
        foreach (Part part in parts)
        {
            string safe = TerminalText.Sanitize(part.Text);
            if (coloured && part.Colour != Colour.None && safe.Length > 0)
                line.Append("\x1b[").Append((int)part.Colour).Append('m').Append(safe).Append("\x1b[0m");
            else
                line.Append(safe);
        }
        return line.ToString();
    }
}
