using System.Text;

namespace Drover.Orchestrator.CodingAgents;

/// <summary>
/// Makes foreign text harmless on a terminal, in HTML and in prompts (L-01): no control characters except line
/// feed and tab, no escape sequences, whole or cut off, in 7 or 8 bits, no bidirectional controls. An instance
/// carries its state from chunk to chunk.
/// </summary>
internal sealed class TerminalText
{
    private enum State
    {
        Text,
        Escape, // after ESC
        EscapeIntermediate, // ESC and blanks to slashes: one final byte follows
        Csi,
        ControlString, // OSC, DCS, APC, PM, SOS: until BEL or ST
        ControlStringEscape,
    }

    private const int LongestSequence = 4096;
    private State state;
    private int length;

    /// <summary>Sanitizes a whole text.</summary>
    public static string Sanitize(string text) => new TerminalText().Next(text);

    /// <summary>Sanitizes to one line: line ends and tabs become blanks, at most <paramref name="limit"/> characters and then an ellipsis.</summary>
    public static string SanitizeLine(string text, int limit = 500)
    {
        var line = Sanitize(text).Replace('\n', ' ').Replace('\t', ' ').Trim();
        if (line.Length <= limit)
            return line;
        var cut = char.IsHighSurrogate(line[limit - 1]) ? limit - 1 : limit;
        return line[..cut] + "…";
    }

    /// <summary>Sanitizes the next chunk of a stream.</summary>
    public string Next(string chunk)
    {
        var result = new StringBuilder(chunk.Length);
        foreach (var character in chunk)
        {
            // A sequence that never ends would swallow all that follows.
            if (state != State.Text && ++length > LongestSequence)
                Enter(State.Text);
            Step(character, result);
        }
        return result.ToString();
    }

    private void Step(char c, StringBuilder result)
    {
        switch (state)
        {
            case State.Text:
                StepText(c, result);
                break;
            case State.Escape:
                Enter(c switch
                {
                    '[' => State.Csi,
                    ']' or 'P' or '_' or '^' or 'X' => State.ControlString,
                    >= ' ' and <= '/' => State.EscapeIntermediate,
                    '\x1b' => State.Escape,
                    _ => State.Text,
                });
                if (c == '\n')
                    result.Append(c);
                break;
            case State.EscapeIntermediate:
                StepUntilFinal(c, '0', result);
                break;
            case State.Csi:
                StepUntilFinal(c, '@', result);
                break;
            case State.ControlString:
                if (c is '\a' or '\u009c' or '\x18' or '\x1a')
                    Enter(State.Text);
                else if (c == '\x1b')
                    state = State.ControlStringEscape;
                break;
            case State.ControlStringEscape:
                if (c == '\\')
                {
                    Enter(State.Text);
                }
                else
                {
                    Enter(State.Escape);
                    Step(c, result);
                }
                break;
        }
    }

    /// <summary>Within a sequence of parameters and intermediates: ends at its final byte, and at anything that cannot be part of it.</summary>
    private void StepUntilFinal(char c, char firstFinal, StringBuilder result)
    {
        if (c is '\x1b')
        {
            Enter(State.Escape);
            return;
        }
        if (c >= ' ' && c < firstFinal)
            return;
        Enter(State.Text);
        if (c is < ' ' or > '~')
            StepText(c, result);
    }

    private void StepText(char c, StringBuilder result)
    {
        switch (c)
        {
            case '\n' or '\t':
                result.Append(c);
                break;
            case '\x1b':
                Enter(State.Escape);
                break;
            case '\u009b':
                Enter(State.Csi);
                break;
            case '\u009d' or '\u0090' or '\u009e' or '\u009f' or '\u0098':
                Enter(State.ControlString);
                break;
            case < ' ' or (>= '\x7f' and <= '\u009f'):
            case '\u061c' or '\u200e' or '\u200f' or (>= '\u202a' and <= '\u202e') or (>= '\u2066' and <= '\u2069'):
                break;
            default:
                result.Append(c);
                break;
        }
    }

    private void Enter(State next)
    {
        state = next;
        length = 0;
    }
}
