using System.Globalization;

namespace Drover.Cli.Terminal;

/// <summary>How statuses look.</summary>
internal static class StatusStyle
{
    public static Colour Of(string status) => status switch
    {
        "completed" => Colour.Green,
        "in_progress" or "claimed" => Colour.Cyan,
        "paused" => Colour.Yellow,
        "failed" => Colour.Red,
        "ready" => Colour.None,
        _ => Colour.Dim,
    };

    public static string Icon(string status) => status switch
    {
        "completed" => "✓",
        "in_progress" => "▶",
        "claimed" => "◌",
        "paused" => "?",
        "failed" => "✗",
        "cancelled" => "–",
        "ready" => "○",
        _ => "·",
    };

    /// <summary>A bar of so many cells with count and percentage.</summary>
    public static string Bar(int done, int total, int cells)
    {
        int filled = total == 0 ? 0 : (int)((long)done * cells / total);
        double percent = total == 0 ? 0 : 100.0 * done / total;
        return string.Create(CultureInfo.InvariantCulture, $"[{new string('█', filled)}{new string('░', cells - filled)}] {done}/{total} ({percent:0.0}%)");
    }

    /// <summary>A branch's short name.</summary>
    public static string Branch(string target) => target.StartsWith("refs/heads/", StringComparison.Ordinal) ? target["refs/heads/".Length..] : target;

    /// <summary>A running time as people read it.</summary>
    public static string Elapsed(TimeSpan time) =>
        time.TotalHours >= 1 ? string.Create(CultureInfo.InvariantCulture, $"{(int)time.TotalHours}h{time.Minutes:00}m")
        : time.TotalMinutes >= 1 ? string.Create(CultureInfo.InvariantCulture, $"{time.Minutes}m{time.Seconds:00}s")
        : string.Create(CultureInfo.InvariantCulture, $"{time.Seconds}s");
}
