using System.Text.RegularExpressions;
using Drover.Orchestrator.Backlog;

namespace Drover.Cli.Tests;

/// <summary>Events of the log in words.</summary>
public sealed partial class EventTextTests
{
    // Every type that is written, by the source; the two that are put together from a state as well.
    private static readonly string[] Written = [.. Directory.GetFiles(Path.Combine(Repository(), "src", "Drover.Orchestrator", "Backlog"), "Board*.cs")
        .SelectMany(f => EventType().Matches(File.ReadAllText(f)).Select(m => m.Groups[1].Value))
        .Append("landing." + LandingState.Conflict).Append("landing." + LandingState.Red).Distinct().Order(StringComparer.Ordinal)];

    [Fact]
    public void Every_event_that_is_written_has_words_of_its_own()
    {
        Assert.True(Written.Length > 15, string.Join(' ', Written));
        string words = File.ReadAllText(Path.Combine(Repository(), "src", "Drover.Cli", "RunSession.cs"));
        Assert.All(Written, type => Assert.Contains($"\"{type}\"", words, StringComparison.Ordinal));
    }

    [Fact]
    public void No_raw_event_name_is_ever_printed()
    {
        foreach (string type in Written.Append("task.made-by-a-newer-program"))
        {
            if (EventText.Of(new EventRow(1, "task-a", null, null, type, 0, "{}")) is { } shown)
                Assert.DoesNotContain(type, shown.Text, StringComparison.Ordinal);
        }
        Assert.Equal("made by a newer program", EventText.Of(new EventRow(1, "task-a", null, null, "task.made-by-a-newer-program", 0, "{}"))!.Text);
    }

    [GeneratedRegex("\"((?:task|epic|landing|run)\\.[a-z-]+)\"")]
    private static partial Regex EventType();

    private static string Repository()
    {
        string? folder = AppContext.BaseDirectory;
        while (folder is not null && !File.Exists(Path.Combine(folder, "Drover.slnx")))
            folder = Path.GetDirectoryName(folder);
        return folder ?? throw new InvalidOperationException("the tests do not run inside the repository");
    }
}
