using System.Globalization;

namespace Drover.Cli.Terminal;

/// <summary>Progress when nobody watches a terminal: one line per event.</summary>
internal static class LineProgress
{
    public static async Task ShowAsync(RunSession session, Output output, CancellationToken cancellationToken)
    {
        await foreach (RunEvent one in session.EventsAsync(cancellationToken))
            output.Say(Parts(one));
    }

    /// <summary>One event as a line: time, task, attempt, what.</summary>
    public static Part[] Parts(RunEvent one) =>
    [
        (one.Time.ToLocalTime().ToString("HH:mm:ss", CultureInfo.InvariantCulture), Colour.Dim),
        one.Task is null ? "" : " " + one.Task + (one.Attempt is > 1 and { } n ? string.Create(CultureInfo.InvariantCulture, $"#{n}") : ""),
        " ",
        (one.Text, OfKind(one.Kind)),
    ];

    private static Colour OfKind(string kind) =>
        kind.EndsWith("completed", StringComparison.Ordinal) || kind.EndsWith("landed", StringComparison.Ordinal) ? Colour.Green
        : kind.EndsWith("failed", StringComparison.Ordinal) ? Colour.Red
        : kind.EndsWith("paused", StringComparison.Ordinal) ? Colour.Yellow : Colour.None;
}
