using System.Globalization;
using System.Text;
using Drover.Workflows;

namespace Drover.Orchestrator.Backlog;

/// <summary>The one validator for text at every boundary (rule C-02). It checks the exact string that is used later.</summary>
public static class TextRules
{
    /// <summary>Longest title, in UTF-16 code units.</summary>
    public const int MaxTitle = 512;
    /// <summary>Longest description, in UTF-8 bytes.</summary>
    public const int MaxDescription = 64 * 1024;
    /// <summary>Longest note to an agent, in UTF-8 bytes.</summary>
    public const int MaxNote = 16 * 1024;
    /// <summary>Longest id.</summary>
    public const int MaxId = 64;

    /// <summary>Checks a one-line text that must not be empty; returns it unchanged.</summary>
    /// <exception cref="DroverException"><see cref="ErrorCode.InvalidInput"/>, naming the field.</exception>
    public static string Title(string field, string value)
    {
        ArgumentNullException.ThrowIfNull(value);
        if (string.IsNullOrWhiteSpace(value))
            throw Bad(field, "is empty", "give it a text");
        return Check(field, value, multiLine: false, MaxTitle);
    }

    /// <summary>Checks a text of several lines; returns it unchanged.</summary>
    /// <exception cref="DroverException"><see cref="ErrorCode.InvalidInput"/>, naming the field.</exception>
    public static string Lines(string field, string value, int maxBytes = MaxDescription) => Check(field, value, multiLine: true, maxBytes);

    /// <summary>Checks an id: <c>[A-Za-z0-9._-]</c>, at most 64 characters, not starting with <c>-</c> or <c>.</c>; returns it unchanged.</summary>
    /// <exception cref="DroverException"><see cref="ErrorCode.InvalidInput"/>, naming the field.</exception>
    public static string Id(string field, string value)
    {
        ArgumentNullException.ThrowIfNull(value);
        if (value.Length is 0 or > MaxId)
            throw Bad(field, value.Length == 0 ? "is empty" : $"is longer than {MaxId} characters", "use an id that `drover status` shows");
        foreach (char c in value)
        {
            if (!char.IsAsciiLetterOrDigit(c) && c is not ('.' or '_' or '-'))
                throw Bad(field, $"'{Printable(value)}' is not an id", "ids have only letters, digits, '.', '_' and '-'");
        }
        if (value[0] is '-' or '.')
            throw Bad(field, $"'{value}' starts with '{value[0]}'", "ids start with a letter or digit");
        return value;
    }

    /// <summary>A foreign text made safe for a one-line message: control characters shown as '?', at most 80 characters.</summary>
    public static string Printable(string value)
    {
        ArgumentNullException.ThrowIfNull(value);
        var text = new StringBuilder();
        foreach (Rune rune in value.EnumerateRunes())
        {
            if (text.Length >= 80)
                return text.Append('…').ToString();
            text.Append(Forbidden(rune, multiLine: false) || Rune.GetUnicodeCategory(rune) == UnicodeCategory.Format ? "?" : rune.ToString());
        }
        return text.ToString();
    }

    /// <summary>The candidate that differs least from a mistyped id; null when none is close.</summary>
    public static string? Nearest(string wanted, IEnumerable<string> candidates)
    {
        ArgumentNullException.ThrowIfNull(wanted);
        ArgumentNullException.ThrowIfNull(candidates);
        if (wanted.Length > MaxId)
            return null;
        string? best = null;
        int bestDistance = Math.Max(1, wanted.Length / 4) + 1;
        foreach (string candidate in candidates)
        {
            if (Math.Abs(candidate.Length - wanted.Length) >= bestDistance)
                continue;
            int distance = Distance(wanted, candidate);
            if (distance < bestDistance)
                (best, bestDistance) = (candidate, distance);
        }
        return best;
    }

    private static string Check(string field, string value, bool multiLine, int max)
    {
        ArgumentNullException.ThrowIfNull(value);
        int size = multiLine ? Encoding.UTF8.GetByteCount(value) : value.Length;
        if (size > max)
            throw Bad(field, $"is longer than {max} {(multiLine ? "bytes" : "characters")}", "shorten it");
        for (int i = 0; i < value.Length; i++)
        {
            if (char.IsSurrogate(value[i]))
            {
                if (i + 1 >= value.Length || !char.IsSurrogatePair(value[i], value[i + 1]))
                    throw Bad(field, $"is not valid Unicode at character {i + 1}", "remove the lone surrogate");
                i++;
            }
            else if (Forbidden(new Rune(value[i]), multiLine))
            {
                string what = value[i] is '\n' or '\r' ? "a line break" : $"the control character U+{(int)value[i]:X4}";
                throw Bad(field, $"has {what} at character {i + 1}", "remove it");
            }
        }
        // Under InvariantGlobalization the runtime has no normalization data and calls every text normalized: there this line refuses nothing.
        if (!value.IsNormalized(NormalizationForm.FormC))
            throw Bad(field, "is not in Unicode normal form C", "write it with composed characters");
        return value;
    }

    private static bool Forbidden(Rune rune, bool multiLine) =>
        rune.Value is < 0x20 or (>= 0x7F and <= 0x9F) && !(multiLine && rune.Value is '\n' or '\t' && multiLine);

    private static DroverException Bad(string field, string what, string fix) => new(ErrorCode.InvalidInput, $"{field} {what}: {fix}");

    // Edits, with two swapped neighbours counted as one: the commonest slip.
    private static int Distance(string a, string b)
    {
        int[,] cost = new int[a.Length + 1, b.Length + 1];
        for (int i = 0; i <= a.Length; i++)
            cost[i, 0] = i;
        for (int j = 0; j <= b.Length; j++)
            cost[0, j] = j;
        for (int i = 1; i <= a.Length; i++)
        {
            for (int j = 1; j <= b.Length; j++)
            {
                int least = Math.Min(Math.Min(cost[i - 1, j], cost[i, j - 1]) + 1, cost[i - 1, j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1));
                if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                    least = Math.Min(least, cost[i - 2, j - 2] + 1);
                cost[i, j] = least;
            }
        }
        return cost[a.Length, b.Length];
    }
}
