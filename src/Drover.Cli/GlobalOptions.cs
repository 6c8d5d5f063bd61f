using System.CommandLine;

namespace Drover.Cli;

/// <summary>Options that several commands share, so that they have one name and one text.</summary>
internal static class GlobalOptions
{
    /// <summary>Valid for every command.</summary>
    public static Option<string?> Database { get; } = new("--database")
    {
        Description = "The database, as sqlite:///file.db (relative) or sqlite:////folder/file.db. Default: .drover/drover.db of the repository.",
        HelpName = "url",
        Recursive = true,
    };

    /// <summary>Valid for every command.</summary>
    public static Option<bool> Verbose { get; } = new("--verbose", "-v") { Description = "Say more; with an unexpected error, where it happened.", Recursive = true };

    /// <summary>A new <c>--json</c>.</summary>
    public static Option<bool> Json() => new("--json") { Description = "Print JSON on stdout." };

    /// <summary>A new argument for a task's id.</summary>
    public static Argument<string> Task() => new("task") { Description = "The task's id, as `drover status` shows it." };
}
