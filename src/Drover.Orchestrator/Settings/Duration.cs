using System.Globalization;
using System.Text;
using Drover.Workflows;

namespace Drover.Orchestrator.Settings;

/// <summary>Durations as people write them: <c>250ms</c>, <c>5s</c>, <c>10m</c>, <c>1h30m</c>, <c>2d</c>.</summary>
public static class Duration
{
    private static readonly (string Unit, long Ms)[] Units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

    /// <summary>Reads a duration of at least one millisecond and at most 365 days. Units come from large to small, each once.</summary>
    /// <exception cref="DroverException"><see cref="ErrorCode.InvalidInput"/>.</exception>
    public static TimeSpan Parse(string text) => TryParse(text, out TimeSpan value) ? value
        : throw new DroverException(ErrorCode.InvalidInput, $"'{Backlog.TextRules.Printable(text)}' is not a duration: write it as 5s, 10m or 1h30m");

    /// <summary>As <see cref="Parse"/>, without throwing.</summary>
    public static bool TryParse(string? text, out TimeSpan value)
    {
        value = default;
        if (string.IsNullOrEmpty(text))
            return false;
        long total = 0;
        int at = 0, last = -1;
        while (at < text.Length)
        {
            int digits = at;
            while (at < text.Length && char.IsAsciiDigit(text[at]))
                at++;
            int letters = at;
            while (at < text.Length && char.IsAsciiLetterLower(text[at]))
                at++;
            int unit = Array.FindIndex(Units, u => u.Unit.AsSpan().SequenceEqual(text.AsSpan(letters, at - letters)));
            if (letters == digits || letters - digits > 9 || unit <= last)
                return false;
            last = unit;
            total += long.Parse(text.AsSpan(digits, letters - digits), CultureInfo.InvariantCulture) * Units[unit].Ms;
        }
        value = TimeSpan.FromMilliseconds(total);
        return total > 0 && value <= TimeSpan.FromDays(365);
    }

    /// <summary>The shortest text that reads back as the same duration, in whole milliseconds.</summary>
    public static string Format(TimeSpan value)
    {
        long left = (long)value.TotalMilliseconds;
        var text = new StringBuilder();
        foreach ((string unit, long ms) in Units)
        {
            // "90m" stays minutes-and-hours (1h30m), but 24 h and more only become days when nothing is left over.
            if (unit == "d" && left % ms != 0)
                continue;
            if (left / ms is > 0 and long count)
            {
                text.Append(CultureInfo.InvariantCulture, $"{count}{unit}");
                left -= count * ms;
            }
        }
        return text.Length == 0 ? "0s" : text.ToString();
    }
}
