using System.Globalization;

namespace Drover.Cli.Terminal;

/// <summary>Progress when nobody watches a terminal: one line per event.</summary>
internal static class LineProgress
{
    public static async Task ShowAsync(RunSession session, Output output, bool verbose, CancellationToken cancellationToken)
    {
        await foreach (RunEvent one in session.EventsAsync(cancellationToken))
        {
            if (verbose || Matters(one))
                output.Say(Parts(one));
        }
    }

    /// <summary>False for the small steps of a task's life, which a busy run would drown in.</summary>
    public static bool Matters(RunEvent one) => one.Kind is not ("task.phase" or "task.claimed" or "landing.intended");

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
