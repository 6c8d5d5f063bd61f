using System.Globalization;
using System.Text.RegularExpressions;
using Drover.Workflows;

namespace Drover.Orchestrator.Git;

/// <summary>
/// One attempt at one task, and every name derived from it. Only generated ids get here, never titles, so nothing a person or
/// an agent wrote reaches a ref or a path.
/// </summary>
internal sealed partial record AttemptName
{
    /// <summary>Checks the id (<c>task-k3f9</c>, <c>task-k3f9.1</c>) and the number (1 or more).</summary>
    /// <exception cref="DroverException">InvalidInput.</exception>
    public AttemptName(string task, int attempt)
    {
        if (!TaskPattern().IsMatch(task) || attempt < 1)
            throw new DroverException(ErrorCode.InvalidInput, $"'{task}' attempt {attempt} is not a task id (like task-k3f9 or task-k3f9.1) with an attempt number from 1");
        Task = task;
        Attempt = attempt;
    }

    public string Task { get; }

    public int Attempt { get; }

    /// <summary><c>task-k3f9-1</c>: name of the folder.</summary>
    public string Key => $"{Task}-{Number}";

    public string Branch => $"refs/heads/drover/{Key}";

    /// <summary>Where the attempt's work commit is anchored.</summary>
    public string AttemptRef => $"refs/drover/attempts/{Task}/{Number}";

    /// <summary>Where bytes that are in no commit are saved before anything is removed.</summary>
    public string RescueRef => $"refs/drover/rescue/{Task}/{Number}";

    /// <summary>Value of the trailer <c>Drover-Work</c>.</summary>
    public string Trailer => $"{Task}/{Number}";

    private string Number => Attempt.ToString(CultureInfo.InvariantCulture);

    /// <summary>The attempt a folder name stands for; null for any other folder.</summary>
    public static AttemptName? Parse(string key)
    {
        var at = key.LastIndexOf('-');
        return at > 0 && TaskPattern().IsMatch(key[..at]) && int.TryParse(key[(at + 1)..], NumberStyles.None, CultureInfo.InvariantCulture, out var n) && n > 0
            ? new AttemptName(key[..at], n) : null;
    }

    [GeneratedRegex(@"^task-[a-z0-9]{1,32}(\.[0-9]{1,4}){0,4}\z")]
    private static partial Regex TaskPattern();
}
