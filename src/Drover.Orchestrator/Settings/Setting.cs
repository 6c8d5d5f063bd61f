using System.Globalization;
using Drover.Orchestrator.Backlog;
using Drover.Workflows;

namespace Drover.Orchestrator.Settings;

/// <summary>What a setting's value is.</summary>
public enum SettingKind
{
    /// <summary>A one-line text.</summary>
    Text,
    /// <summary>One of a list of words.</summary>
    Word,
    /// <summary>A whole number.</summary>
    Number,
    /// <summary>A duration, see <see cref="Duration"/>.</summary>
    Time,
    /// <summary>A list of names or paths; on a command line separated by commas.</summary>
    List,
}

/// <summary>
/// One option: where it can be given, what it may be, and its line of documentation. Loading, checking, showing, setting and the
/// reference page all come from these records.
/// </summary>
public sealed record Setting
{
    /// <summary>The key in <c>.drover/config.json</c>, dotted; also the name in <c>drover config set</c>. Options that the file does not hold have a key too, with <see cref="InFile"/> false.</summary>
    public required string Key { get; init; }
    /// <summary>The environment variable; null when there is none.</summary>
    public string? Variable { get; init; }
    /// <summary>The flag of <c>run</c> and <c>resume</c>; null when there is none.</summary>
    public string? Flag { get; init; }
    /// <summary>What the value is.</summary>
    public required SettingKind Kind { get; init; }
    /// <summary>The default as text; null when there is none.</summary>
    public string? Default { get; init; }
    /// <summary>One line for people.</summary>
    public required string Doc { get; init; }
    /// <summary>The words that are allowed; null when it is not a word (or list of words).</summary>
    public IReadOnlyList<string>? Words { get; init; }
    /// <summary>For numbers.</summary>
    public int Min { get; init; } = 1;
    /// <summary>For numbers.</summary>
    public int Max { get; init; } = 1000;
    /// <summary>True when the values are paths inside the repository.</summary>
    public bool Paths { get; init; }
    /// <summary>True when the values are names of environment variables.</summary>
    public bool Names { get; init; }
    /// <summary>False when only the environment can give it.</summary>
    public bool InFile { get; init; } = true;

    /// <summary>Checks one value and returns it in its canonical form; lists are joined by line feeds.</summary>
    /// <remarks><paramref name="where"/>: what is named in a message, for example <c>DROVER_WORKERS</c> or <c>.drover/config.json: workers</c>.</remarks>
    /// <exception cref="DroverException"><see cref="ErrorCode.InvalidInput"/>.</exception>
    internal string Check(string where, string value)
    {
        switch (Kind)
        {
            case SettingKind.Number:
                return int.TryParse(value, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int number) && number >= Min && number <= Max
                    ? number.ToString(CultureInfo.InvariantCulture) : throw Bad(where, value, $"a whole number from {Min} to {Max}");
            case SettingKind.Time:
                return Duration.TryParse(value, out TimeSpan time) ? Duration.Format(time) : throw Bad(where, value, "a duration such as 30s, 10m or 1h30m");
            case SettingKind.List:
                return string.Join('\n', value.Split(['\n', ','], StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries).Select(v => One(where, v)).Distinct());
            default:
                return One(where, value);
        }
    }

    private string One(string where, string value)
    {
        if (Words is not null && !Words.Contains(value))
            throw Bad(where, value, "one of " + string.Join(", ", Words));
        TextRules.Title(where, value);
        if (Paths && (Path.IsPathRooted(value) || value.Contains('\\', StringComparison.Ordinal) || value.Split('/').Any(p => p is ".." or ".git")))
            throw Bad(where, value, "a path inside the repository, without '..'");
        if (Names && (char.IsAsciiDigit(value[0]) || value.Any(c => !char.IsAsciiLetterOrDigit(c) && c != '_')))
            throw Bad(where, value, "the name of an environment variable");
        return value;
    }

    private static DroverException Bad(string where, string value, string expected) =>
        new(ErrorCode.InvalidInput, $"{where}: '{TextRules.Printable(value)}' is not {expected}");
}

/// <summary>Every option there is.</summary>
public static class SettingCatalog
{
    /// <summary>The agents a project can name. Whether this version has an adapter is for the adapters to say.</summary>
    public static IReadOnlyList<string> AgentTypes { get; } = ["claude", "codex", "amp", "opencode", "command", "fake"];

    /// <summary>All settings in the order in which they are shown and written.</summary>
    public static IReadOnlyList<Setting> All { get; } =
    [
        new() { Key = "target", Flag = "--target", Kind = SettingKind.Text, Doc = "The branch on which finished work lands." },
        new() { Key = "testCommand", Kind = SettingKind.Text, Doc = "The command that must succeed on exactly the tree that lands; a task's own test command replaces it." },
        new() { Key = "workers", Variable = "DROVER_WORKERS", Flag = "--workers", Kind = SettingKind.Number, Default = "3", Max = 256, Doc = "How many tasks are worked on at once." },
        new() { Key = "maxAttempts", Flag = "--max-attempts", Kind = SettingKind.Number, Default = "3", Max = 100, Doc = "How many attempts a task gets." },
        new() { Key = "agent.type", Variable = "DROVER_AGENT_TYPE", Kind = SettingKind.Word, Default = "claude", Words = AgentTypes, Doc = "The coding agent." },
        new() { Key = "agent.path", Variable = "DROVER_AGENT_PATH", Kind = SettingKind.Text, Doc = "The agent's program; by default the agent's usual name, found in PATH." },
        new() { Key = "env.pass", Kind = SettingKind.List, Names = true, Doc = "Names of further environment variables that agents, gates and set-up see." },
        new() { Key = "gate.keep", Kind = SettingKind.List, Paths = true, Doc = "Ignored paths that stay in the gate's worktree between gates." },
        new() { Key = "worktree.setup", Kind = SettingKind.Text, Doc = "The command that makes a fresh worktree buildable." },
        new() { Key = "worktree.copy", Kind = SettingKind.List, Paths = true, Doc = "Ignored files of the checkout that each worktree gets, such as .env." },
        new() { Key = "worktree.root", Kind = SettingKind.Text, Default = ".drover/worktrees", Doc = "The folder of the worktrees, relative to the repository or absolute." },
        new() { Key = "timeouts.task", Variable = "DROVER_TASK_TIMEOUT", Kind = SettingKind.Time, Default = "1h", Doc = "The longest time of one agent turn." },
        new() { Key = "timeouts.silence", Variable = "DROVER_STALL_TIMEOUT", Kind = SettingKind.Time, Default = "15m", Doc = "The longest time without output of an agent." },
        new() { Key = "timeouts.start", Kind = SettingKind.Time, Doc = "The longest time until an agent's first output; not limited when unset." },
        new() { Key = "timeouts.claim", Variable = "DROVER_CLAIM_TIMEOUT", Kind = SettingKind.Time, Default = "5m", Doc = "How long a reserved task may wait for its start before it is reserved anew." },
        new() { Key = "timeouts.gate", Kind = SettingKind.Time, Default = "30m", Doc = "The longest time of a gate." },
        new() { Key = "timeouts.setup", Kind = SettingKind.Time, Default = "15m", Doc = "The longest time of worktree.setup." },
        new() { Key = "landing.maxDeletedPaths", Kind = SettingKind.Number, Default = "200", Min = 0, Max = 1_000_000, Doc = "A change that deletes more paths (or more than a fifth of all) waits for a person." },
        new() { Key = "environment", Variable = "DROVER_ENV", Kind = SettingKind.Text, Default = "development", InFile = false, Doc = "The name of the environment; handed to agents, set-up and gates as DROVER_ENV." },
    ];

    /// <summary>The setting with a key; null when there is none.</summary>
    public static Setting? Find(string key) => All.FirstOrDefault(s => s.Key == key);

    /// <summary>The setting with a key that the file can hold.</summary>
    /// <exception cref="DroverException"><see cref="ErrorCode.InvalidInput"/>, with the nearest key there is.</exception>
    public static Setting Get(string key)
    {
        if (Find(key) is { InFile: true } setting)
            return setting;
        string? near = TextRules.Nearest(key, All.Where(s => s.InFile).Select(s => s.Key));
        throw new DroverException(ErrorCode.InvalidInput, $"there is no setting '{TextRules.Printable(key)}': {(near is null ? "`drover config show` lists them" : $"did you mean {near}?")}");
    }
}
