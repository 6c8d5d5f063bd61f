namespace Drover.Orchestrator.CodingAgents;

/// <summary>How this machine starts the <c>drover</c> program again, as keeper or as fake agent.</summary>
/// <param name="FileName">The program: the <c>drover</c> executable, or <c>dotnet</c>.</param>
/// <param name="Arguments">What comes before Drover's own first argument: nothing, or the path of <c>drover.dll</c>.</param>
internal sealed record KeeperCommand(string FileName, IReadOnlyList<string> Arguments)
{
    /// <summary>This program itself when it is <c>drover</c>; otherwise (tests, benchmarks) the <c>drover</c> that lies beside it.</summary>
    public static KeeperCommand Default { get; } = Find();

    private static KeeperCommand Find()
    {
        var self = Environment.ProcessPath;
        if (self is not null && Path.GetFileNameWithoutExtension(self) == "drover")
            return new(self, []);
        var library = Path.Combine(AppContext.BaseDirectory, "drover.dll");
        return new(FindDotnet(self), [library]);
    }

    private static string FindDotnet(string? self)
    {
        if (self is not null && Path.GetFileNameWithoutExtension(self) == "dotnet")
            return self;
        if (Environment.GetEnvironmentVariable("DOTNET_HOST_PATH") is { Length: > 0 } host && File.Exists(host))
            return host;
        // A test's own executable: the runtime it runs on lies at <root>/shared/Microsoft.NETCore.App/<version>/.
        var root = Path.GetFullPath(Path.Combine(System.Runtime.InteropServices.RuntimeEnvironment.GetRuntimeDirectory(), "..", "..", ".."));
        var beside = Path.Combine(root, "dotnet");
        return File.Exists(beside) ? beside : ProgramPath.Resolve("dotnet", Environment.GetEnvironmentVariable("PATH")) ?? "dotnet";
    }
}

/// <summary>Finds programs as execvp does, but in the PATH that the program will get.</summary>
internal static class ProgramPath
{
    /// <summary>
    /// The file that would run, or null. A name with a slash is returned as it is when that file can be executed. Entries of
    /// the PATH that are not absolute are passed over: they would find what an agent put into its worktree.
    /// </summary>
    internal static string? Resolve(string program, string? path, string? folder = null)
    {
        if (program.Length == 0)
            return null;
        if (program.Contains('/', StringComparison.Ordinal))
            return IsExecutable(Path.GetFullPath(program, folder ?? Environment.CurrentDirectory)) ? program : null;
        foreach (var entry in (path ?? "/usr/local/bin:/usr/bin:/bin").Split(':'))
        {
            var candidate = Path.Combine(entry, program);
            if (Path.IsPathRooted(entry) && IsExecutable(candidate))
                return candidate;
        }
        return null;
    }

    private static bool IsExecutable(string path)
    {
        const UnixFileMode Executable = UnixFileMode.UserExecute | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute;
        return File.Exists(path) && (OperatingSystem.IsWindows() || (File.GetUnixFileMode(path) & Executable) != 0);
    }
}
