using Drover.Orchestrator.Backlog;
using Spectre.Console;
using Spectre.Console.Rendering;

namespace Drover.Cli.Terminal;

/// <summary>Progress on a terminal: events scroll by, and below them stand a line per worker and a bar, drawn in place.</summary>
internal static class LiveProgress
{
    public static async Task ShowAsync(RunSession session, Output output, bool verbose, CancellationToken cancellationToken)
    {
        IAnsiConsole console = AnsiConsole.Create(new AnsiConsoleSettings
        {
            Ansi = AnsiSupport.Yes,
            ColorSystem = ColorSystemSupport.NoColors,
            Interactive = InteractionSupport.Yes,
            Out = new AnsiConsoleOutput(Console.Error),
        });
        var above = new Queue<string>();
        output.Above = line =>
        {
            lock (above)
                above.Enqueue(line);
        };
        try
        {
            using var ended = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
            Task events = CollectAsync(session, output, verbose, ended.Token);
            await console.Live(Block(await session.SnapshotAsync(cancellationToken))).AutoClear(true).StartAsync(async context =>
            {
                using var timer = new PeriodicTimer(TimeSpan.FromMilliseconds(200), TimeProvider.System);
                while (!events.IsCompleted)
                {
                    Flush(console, above);
                    context.UpdateTarget(Block(await session.SnapshotAsync(cancellationToken)));
                    await timer.WaitForNextTickAsync(cancellationToken);
                }
            });
            Flush(console, above);
            await events;
        }
        finally
        {
            output.Above = null;
            Flush(console, above);
        }
    }

    private static async Task CollectAsync(RunSession session, Output output, bool verbose, CancellationToken cancellationToken)
    {
        await foreach (RunEvent one in session.EventsAsync(cancellationToken))
        {
            if (verbose || LineProgress.Matters(one))
                output.Say(LineProgress.Parts(one));
        }
    }

    // The lines are sanitized and coloured already: written as they are, never as markup.
    private static void Flush(IAnsiConsole console, Queue<string> above)
    {
        while (true)
        {
            string? line;
            lock (above)
            {
                if (!above.TryDequeue(out line))
                    return;
            }
            console.Write(new ControlledLine(line));
        }
    }

    private static Rows Block(RunSnapshot snapshot)
    {
        var table = new Grid().AddColumn(new GridColumn().NoWrap()).AddColumn(new GridColumn().NoWrap()).AddColumn().AddColumn(new GridColumn().NoWrap().RightAligned());
        foreach (RunWorker worker in snapshot.Workers)
        {
            table.AddRow(Plain($"{worker.Task} {worker.Title}", 48), Plain(worker.Agent, 12), Plain(worker.LastEvent, 60), Plain(StatusStyle.Elapsed(worker.Elapsed), 10));
        }
        int completed = snapshot.Counts.GetValueOrDefault(ShownStatus.Completed), wanted = snapshot.Counts.Values.Sum() - snapshot.Counts.GetValueOrDefault(ShownStatus.Cancelled);
        return new Rows(table, Plain(StatusStyle.Bar(completed, wanted, 40), 100));
    }

    private static Text Plain(string text, int limit) =>
        new Text(Drover.Orchestrator.CodingAgents.TerminalText.SanitizeLine(text, limit)).Overflow(Overflow.Ellipsis);

    /// <summary>A finished line with its own colour codes; what the block left below it is erased first.</summary>
    private sealed class ControlledLine(string line) : Renderable
    {
        protected override Measurement Measure(RenderOptions options, int maxWidth) => new(0, maxWidth);

        protected override IEnumerable<Segment> Render(RenderOptions options, int maxWidth) => [Segment.Control("\x1b[J" + line), Segment.LineBreak];
    }
}
