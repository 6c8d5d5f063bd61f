namespace Drover.Orchestrator.Backlog;

/// <summary>A remark on a task's text.</summary>
/// <remarks><paramref name="Refused"/>: true when the task is not accepted without <c>--skip-validation</c>.</remarks>
public sealed record QualityRemark(string Problem, string Suggestion, bool Refused);

/// <summary>
/// Whether an agent could do something with a task's text. It assumes no language, natural or programming: length and known empty
/// phrases only. Remarks are warnings, except for a task that says nothing but such a phrase.
/// </summary>
public static class TaskQuality
{
    private static readonly string[] Vague =
    [
        "various improvements", "make it better", "optimize it", "fix issues", "fix bugs", "update things", "improve performance", "add features", "handle errors",
        "clean up code", "misc", "stuff", "todo", "tbd",
    ];

    /// <summary>The remarks on a title and a description; empty when there are none.</summary>
    public static IReadOnlyList<QualityRemark> Check(string title, string description)
    {
        ArgumentNullException.ThrowIfNull(title);
        ArgumentNullException.ThrowIfNull(description);
        string bare = title.Trim().TrimEnd('.', '!').ToLowerInvariant();
        if (Array.IndexOf(Vague, bare) >= 0 && description.Trim().Length < 30)
            return [new QualityRemark($"'{TextRules.Printable(title)}' does not say what to do", "name what is to change and how one sees that it is done, or pass --skip-validation", true)];

        var remarks = new List<QualityRemark>();
        // Letters beyond Latin-1 carry more per character, so the length rule would only scold other scripts.
        if (bare.Length < 10 && bare.All(c => c < 0x250))
            remarks.Add(new QualityRemark("the title is shorter than 10 characters", "say what is to change", false));
        if (description.Trim().Length == 0)
            remarks.Add(new QualityRemark("there is no description", "--description with the files concerned and how one sees that it is done helps the agent", false));
        foreach (string phrase in Vague)
        {
            if (phrase.Contains(' ', StringComparison.Ordinal) && description.Contains(phrase, StringComparison.OrdinalIgnoreCase))
                remarks.Add(new QualityRemark($"the description says '{phrase}'", "say which", false));
        }
        return remarks;
    }
}
